"""A model and the one who asks it: pictures of one's own, questions in the wording that was trained, and what came of them."""
