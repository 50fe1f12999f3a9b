"""What trained masks say: tables of arms, answers, figures and the chapter of them."""
