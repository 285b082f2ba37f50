"""What is kept on disk from Python: the database, the rows in it, and private files."""
