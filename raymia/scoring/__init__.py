"""From stored evidence to scores, and to what a report needs of them; no model, no Ray."""
