"""Networks looked into, for the page, without a word of HTML."""
