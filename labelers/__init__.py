"""What a document is worth: labelling functions and label models."""
