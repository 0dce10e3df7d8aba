"""User studies: which of two images people prefer (Rombach et al. 2022, table 4 and appendix E.3.6)."""
