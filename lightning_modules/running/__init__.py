"""One job from its composed config to the record of how it ended, and how a command says no."""
