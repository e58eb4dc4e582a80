"""How fast is framecodec? A file a question; see README.md."""
