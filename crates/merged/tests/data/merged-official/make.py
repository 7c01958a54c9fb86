"""Writes a tiny merged checkpoint as the published MergeVLA code lays it out, its base, and what each task's model is.

Needs torch and safetensors. All values are random."""
import json
import os
import torch
from collections import OrderedDict
from safetensors.torch import save_file
out=os.path.dirname(os.path.abspath(__file__))
base_out, m = os.path.join(out, "base"), os.path.join(out, "merged")
for folder in (base_out, m):
    os.makedirs(folder, exist_ok=True)
torch.manual_seed(0)
shapes={"language_model.model.layers.0.mlp.up_proj.weight":(6,5),"language_model.model.layers.0.mlp.up_proj.bias":(6,),
 "vision_backbone.featurizer.norm.weight":(7,),"language_model.model.embed_tokens.weight":(9,4)}
base={k:torch.randn(s).bfloat16() for k,s in shapes.items()}
base["action_queries.weight"]=torch.zeros(3,4).bfloat16()
masked=["language_model.model.layers.0.mlp.up_proj.weight","language_model.model.layers.0.mlp.up_proj.bias"]
tau={k:(torch.randn(s)*0.1).bfloat16() if k in masked else torch.zeros(s).bfloat16() for k,s in shapes.items()}
aq=torch.randn(3,4).bfloat16()
tasks=["libero_spatial","libero_object"]
# The order of the dict is not the order of the indices.
torch.save({"libero_object":1,"libero_spatial":0},os.path.join(m,"task2idx.pt"))
masks={t:{k:torch.rand(shapes[k])>0.5 for k in masked} for t in tasks}
masks["libero_spatial"]["rescaler"]=torch.tensor(1.25)
masks["libero_object"]["rescaler"]=torch.tensor([0.5])
torch.save(masks,os.path.join(m,"tall_masks.pt"))
save_file(base,os.path.join(base_out,"model.safetensors"),{"format":"pt"})
save_file({**tau,"action_queries.weight":aq},os.path.join(m,"model.safetensors"),{"format":"pt"})
json.dump({"model_type":"openvla"},open(os.path.join(m,"config.json"),"w"))
json.dump({f"{t}_no_noops":{"action":{"mean":[float(i)]}} for i,t in enumerate(tasks)},open(os.path.join(m,"dataset_statistics.json"),"w"))
D=4;A=2;L=3
def block(): return {n:torch.randn(s).bfloat16() for n,s in {"gating_factor":(1,),"ffn.0.weight":(D,),"v_adapter.weight":(D,D),"v_task.weight":(D,D)}.items()}
experts=[]
for t in tasks:
    e=OrderedDict()
    e["model.fc1.weight"]=torch.randn(D,A*D).bfloat16()
    for i in range(L):
        for n,v in block().items(): e[f"model.mlp_resnet_blocks.{i}.{n}"]=v
    e["model.layer_norm2.weight"]=torch.randn(D).bfloat16()
    e["model.fc2.weight"]=torch.randn(A,D).bfloat16()
    experts.append(e)
h=OrderedDict(); h["model.router_layer_idx"]=torch.tensor(L-2)
for k in experts[0]:
    vs=[e[k] for e in experts]
    if k.startswith(f"model.mlp_resnet_blocks.{L-1}."):
        n=k.split(".",3)[3]
        if n=="gating_factor": h[f"model.mlp_resnet_moe_blocks.0.gating_factor"]=torch.cat(vs); continue
        mod,par=n.rsplit(".",1)
        for i,v in enumerate(vs): h[f"model.mlp_resnet_moe_blocks.0.{mod}.experts.{i}.{par}"]=v
    elif k.startswith(("model.layer_norm2","model.fc2")):
        mod,par=k.rsplit(".",1)
        for i,v in enumerate(vs): h[f"{mod}.experts.{i}.{par}"]=v
    else: h[k]=((vs[0].float()+vs[1].float())/2).bfloat16()
for w,n in enumerate(("v_adapter","v_task")):
    for i,e in enumerate(experts):
        _,_,V=torch.linalg.svd(e[f"model.mlp_resnet_blocks.{L-2}.{n}.weight"].float())
        h[f"model.gate.gate.{w}.routers.{i}"]=V[:2].clone().bfloat16()
torch.save(h,os.path.join(m,"action_head--checkpoint.pt"))
torch.save(OrderedDict({"module.fc1.weight":torch.randn(D,8).bfloat16()}),os.path.join(m,"proprio_projector--checkpoint.pt"))
# What each task's model is, by the published loader's own arithmetic, in f32 and rounded once.
exp={}
for t,r in (("libero_spatial",1.25),("libero_object",0.5)):
    for k in shapes:
        v=base[k].float()
        if k in masked: v=v+r*masks[t][k].float()*tau[k].float()
        exp[f"{t}/{k}"]=v.bfloat16()
    exp[f"{t}/action_queries.weight"]=aq.clone()
for t,e in zip(tasks,experts):
    for k,v in e.items(): 
        if f"blocks.{L-1}." in k or "layer_norm2" in k or "fc2" in k: exp[f"{t}/head/{k}"]=v
save_file(exp,os.path.join(out,"expected.safetensors"))
