def follow_launcher():
    pass
