"""Photos as people have them: files and folders, read, enhanced, written, reported."""
