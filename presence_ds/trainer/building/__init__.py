"""What is trained: model, attention, vocabulary, optimizer and learning rate, device and precision."""
