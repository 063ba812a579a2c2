"""The JSON that our own routes take and give. Requests refuse fields that nothing would read."""
