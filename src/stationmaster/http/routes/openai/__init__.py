"""OpenAI's API beside the calls of models: files and batches."""
