"""Wire formats of other vendors, which their own clients speak."""
