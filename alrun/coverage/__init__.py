"""Batches that cover the pool: greedy k-center, k-means++ on gradient embeddings, k-medoids."""
