from hypothesis import settings

# the machines of CI are shared: a deadline would measure their load
settings.register_profile("netsuke", deadline=None, max_examples=40)
settings.load_profile("netsuke")
