"""Who may open a tunnel: secrets, tokens, where a request carries them, and the modes that judge them."""
