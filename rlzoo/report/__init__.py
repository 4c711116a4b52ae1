"""What a reader opens: the page of a comparison, its charts and tables, learning curves, and the live table.

All of it is made from run folders alone, at any moment, offline. Nothing here trains, and nothing that trains needs it.
"""
