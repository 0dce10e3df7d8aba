"""How the condition of each task is trained; the registry `CONDITIONERS` names them."""
