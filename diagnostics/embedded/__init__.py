"""The embedded pair: a problem generator and two small models that learned from it."""
