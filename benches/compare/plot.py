def svg(run): return ""
