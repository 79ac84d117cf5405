import pyarrow.parquet as pq

import lfm4ads_tf as lfm

spec = lfm.load_spec("synthetic", {"dataset_options": {"rows": 50_000}})  # or your own YAML file
files = lfm.fetch(spec)  # your own rows: any data frame or Arrow table
tables = {name: pq.read_table(files / f"{name}.parquet") for name in ("users", "ads")}
log = lfm.encode(spec, pq.read_table(files / "log.parquet"), tables)
upstream = lfm.FoundationModel(log.layout, seed=1)
upstream.compile(lfm.HybridOptimizer(table_learning_rate=0.05, dense_learning_rate=1e-3))
chain = lfm.PeriodChain(log)  # period by period, with a snapshot of what each one knew
upstream.fit(chain.dataset(), callbacks=[chain])
print(upstream.evaluate(log.dataset("test"), return_dict=True))
vectors = upstream.represent(next(iter(log.dataset("test"))))
print(vectors["UR"].shape, vectors["IR"].shape, vectors["cross_3"].shape)
stored = lfm.extract(upstream, log, chain)  # UR and IR by key, and the CR of every layer
ranker = lfm.build_downstream("full", upstream, log, "feed", representations=stored)
rows = {"scenario": "feed", "representations": stored, "sources": ranker.sources}
ranker.compile(lfm.HybridOptimizer())
ranker.fit(log.dataset("train", **rows), validation_data=log.dataset("valid", **rows))
version = lfm.export_model(ranker, log, "exports", scenario="feed", representations=stored)
print(lfm.load_export(version, log).predict(log.samples(3, "feed")))
