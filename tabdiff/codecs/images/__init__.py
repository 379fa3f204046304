"""Images to tensors and back, by themselves or through an autoencoder."""
