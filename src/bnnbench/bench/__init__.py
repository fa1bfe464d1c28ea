"""How fast packed networks are on this CPU, beside float and int8 ones."""
