"""What `map` draws, as a page for a browser and as text for a terminal."""
