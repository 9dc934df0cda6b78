"""The int8 dtype: what codes stand for, the ranges that say it, and how they are found with pictures."""
