"""
The measures, one module each, and the processes and rows that they need.

May import bench, testbed and the product.
"""
