"""Raw to tensors, no weights: images, text cleaning, tokenizer, augmentation."""
