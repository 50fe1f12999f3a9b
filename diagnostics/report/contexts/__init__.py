"""What runs over fixed contexts say: their tables, answers and the chapter of them."""
