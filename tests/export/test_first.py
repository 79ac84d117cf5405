import subprocess,sys
def test_all(exports):
    r=subprocess.run([sys.executable,"-m","export.verify",str(exports)],capture_output=True,text=True)
    print(r.stdout, r.stderr[-2000:]); print((exports/"foundation/1/blessing.json").read_text())
    assert r.returncode==0
