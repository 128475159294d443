"""Pure values and decisions: what is asked for, what was proposed, what came of it. Imports no other folder."""
