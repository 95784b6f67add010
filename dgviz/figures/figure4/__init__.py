"""Figure 4 of one weight: its panels, what travels to the browser, and the code that draws it there."""
