import shutil
def test_copy(exports):
    shutil.rmtree("/tmp/k_exports", ignore_errors=True)
    shutil.copytree(exports, "/tmp/k_exports")
