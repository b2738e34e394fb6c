"""What is made before models are asked: references, trained targets, token counts."""
