"""SceneRules, the embedded benchmark in which every scene has its own rules: rendered from a seed, nothing to
download."""
