"""What is told before time is spent: values, keys, options, places, and errors as messages."""
