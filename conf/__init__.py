"""The configuration of plait: Hydra groups of YAML, installed as the package plait.conf."""
