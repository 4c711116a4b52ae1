"""What is kept on disk: the folder of a run, who may write it, and what it was made with."""
