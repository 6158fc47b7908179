"""What a run, or several, did: figures from run directories, and a page of them."""
