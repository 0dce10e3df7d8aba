"""What can be trained, and every option of it."""
