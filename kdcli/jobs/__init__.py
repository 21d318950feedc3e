"""cofinetune, distill, evaluate, export: each a page that reads as the method does; and the run folder."""
