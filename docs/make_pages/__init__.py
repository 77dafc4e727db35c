"""What makes those pages of the site that nobody writes by hand: the API, the strategies, the results."""
