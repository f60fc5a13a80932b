"""Reference networks and data sets for the demo, the labs and the reproductions.

Networks: `digits_net`, `lenet`, `lenet_twn`, `caffe_cifar`, `vgg_cifar`, `resnet_cifar`, `mobilenet_v1`,
`mobilenet_v2`, `squeezenet`, `shufflenet_v2`, `transformer`, `char_gpt`, `llama` (these three over `attention`); found
by name in `registry`. Data: `data` (sets by name), `split` (what a set is), `images` (photographs in a folder),
`language` (texts), `readers` and `llama2c` (files), `normalize`. `weights` loads, `training` trains.
"""
