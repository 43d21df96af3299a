"""diffusion_core: the code behind the book, one idea a file."""
