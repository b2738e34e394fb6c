"""What an audit still has to ask of which model, and what that takes."""
