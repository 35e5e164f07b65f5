"""The data sets: where their files are, how they are downloaded and checked, and their images as arrays."""
