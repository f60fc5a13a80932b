"""Reference networks and data sets for the demo, the labs and the reproductions.

Networks: `digits_net`, `lenet`, `resnet_cifar`, `mobilenet_v2`; found by name in `registry`. Data: `data`
(sets by name), `split` (what a set is), `readers` (files), `normalize`. `weights` loads, `training` trains.
"""
