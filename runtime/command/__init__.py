"""`uml run`: one command in a throwaway guest."""
