"""What a run found, as typed results: verdict, gate, comparison, run folder. No drawing."""
