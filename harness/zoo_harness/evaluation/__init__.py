"""Evaluate networks on a data split: loss, accuracy, predictions, confusion matrix, and separation scores of layers."""
