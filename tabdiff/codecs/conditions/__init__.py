"""What rows are drawn for: classes, numbers, vectors, texts, images."""
